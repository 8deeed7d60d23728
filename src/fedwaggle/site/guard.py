"""A Flower mod around a client app: the server's code, in time, and of a size that travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from fedwaggle.errors import ConfigError
from fedwaggle.site.code import CODE_KEY, code_hash, package_folder
from fedwaggle.site.deadline import DEADLINE_KEY, deadline

if TYPE_CHECKING:
    from flwr.app import Context, Message

    Mod: TypeAlias = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]

__all__ = ["safeguards"]

_HASH_SHOWN = 12  # characters
_DEFAULT_RECORD_BYTES = 65_536
_TIMES_THE_LIMIT = 4  # the metadata and what else an app sends
_NUMBER_BYTES = 8


def safeguards(package: str | None) -> Mod:
    """Return a Flower mod that keeps a client to its server's code and deadline.

    The server names both in its messages on a real federation, where the code of a site may be an
    older one and no engine ends a process that hangs. In a simulation neither is needed, and the
    server names none.

    Parameters
    ----------
    package : str | None
        The app's package, ``__package__``.

    Returns
    -------
    Callable[[Message, Context, Callable], Message]
        For ``ClientApp(mods=[safeguards(__package__)])``. Calling it raises ``ConfigError``, which
        Flower sends as an error reply, if the server runs other code or if the ConfigRecords of the
        reply are too large for a network; and ``TimeoutError``, or it ends the process, if the
        deadline passes.

    Raises
    ------
    ConfigError
        If there is no such package.
    """
    code = code_hash(package_folder(package or ""))

    def guard(
        msg: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        sent = _config_of(msg)
        _refuse_other_code(str(sent.get(CODE_KEY, "")), code)
        seconds = sent.get(DEADLINE_KEY, 0.0)
        with deadline(float(seconds) if isinstance(seconds, int | float) else 0.0):
            reply = call_next(msg, context)
        if DEADLINE_KEY in sent:  # over a network
            _refuse_large_records(reply, context)
        return reply

    return guard


def _refuse_large_records(reply: Message, context: Context) -> None:
    """Raise if ConfigRecords would burden the SuperLink, which keeps each of them in one piece."""
    if reply.has_error():
        return
    limit = context.run_config.get("max-metadata-bytes", _DEFAULT_RECORD_BYTES)
    most = _TIMES_THE_LIMIT * int(limit) if isinstance(limit, int) else _DEFAULT_RECORD_BYTES
    size = sum(
        len(value) if isinstance(value, bytes | str) else _NUMBER_BYTES
        for record in reply.content.config_records.values()
        for values in record.values()
        for value in (values if isinstance(values, list) else [values])
    )
    if size > most:
        raise ConfigError(
            [
                f"the ConfigRecords of a reply: expected at most {most} bytes, "
                f"{_TIMES_THE_LIMIT} times max-metadata-bytes, got {size}; send arrays in an "
                "ArrayRecord, or raise the key"
            ]
        )


def _config_of(msg: Message) -> Mapping[str, Any]:
    """Return the config of a message, under whatever key it lies."""
    configs = msg.content.config_records.values()
    return {key: value for config in configs for key, value in config.items()}


def _refuse_other_code(server: str, client: str) -> None:
    if server and server != client:
        raise ConfigError(
            [
                f"the app's code here ({client[:_HASH_SHOWN]}) is not the server's "
                f"({server[:_HASH_SHOWN]}); update the older one, and see that no other copy of "
                "the app is installed here"
            ]
        )
