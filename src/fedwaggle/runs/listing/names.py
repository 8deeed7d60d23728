"""Names that people can remember: a run that was given none has two words, by its folder."""

from __future__ import annotations

import hashlib
import re

__all__ = ["name_of"]

_STAMP = re.compile(r"\d{8}T\d{6}Z(?:-(?P<name>.+))?")

_ADJECTIVES = """
amber ample azure blithe bold brave bright brisk calm candid clear clever cosy crisp dapper
deft eager early fair fleet fond frank fresh gentle glad golden grand green happy hardy honest
humble jolly keen kind lively lucid lucky merry mild modest neat nimble noble open patient
plain plucky proud quick quiet ready rosy serene sharp silver smart snug sober steady sunny
swift tidy warm
""".split()  # noqa: SIM905  # one to a line would be a page
_NOUNS = """
acorn alder ash aster badger beech beetle birch bluebell bramble briar brook buttercup cedar
cherry clover comet cricket crocus daisy elder elm falcon fern finch firefly foxglove gorse
harebell hawthorn hazel heather heron hive holly iris ivy jasmine juniper lark lavender lilac
linden lupin maple marigold meadow moss nectar oak orchard otter poppy primrose robin rowan
sorrel sparrow swallow thistle thyme violet willow wren
""".split()  # noqa: SIM905  # one to a line would be a page


def name_of(folder: str) -> str:
    """Return the name of a run: the one that it was given, or two words.

    Parameters
    ----------
    folder : str
        The name of its folder.

    Examples
    --------
    >>> name_of("20260102T030405Z-iid"), name_of("20260102T030405Z")
    ('iid', 'quick-ash')
    """
    stamp = _STAMP.fullmatch(folder)
    if stamp is None:
        return folder
    given = stamp["name"]
    if given and not given.isdecimal():  # a number distinguishes runs of one second
        return given
    digest = hashlib.sha256(folder.encode()).digest()
    adjective = _ADJECTIVES[digest[0] % len(_ADJECTIVES)]
    return f"{adjective}-{_NOUNS[digest[1] % len(_NOUNS)]}"
