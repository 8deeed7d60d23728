"""Draw docs/terminal.svg: a real run of the quickstart as it looks in a terminal, row by row.

    python scripts/draw_terminal.py

The rows appear at the times at which they appeared in the run, four times as fast.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedwaggle.runs.listing import record_in_short
from fedwaggle.runs.reading import read_events
from fedwaggle.runs.terminal.rounds import RoundTable
from fedwaggle.runs.terminal.summary import next_command, summary

ROOT = Path(__file__).parents[1]
_SPEED = 4.0
_PAUSE = 4.0  # seconds at the end, before it begins again
_COMMAND = "waggle run bee-garden"


def main() -> None:
    """Run the quickstart, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        waggle = Path(sys.executable).with_name("waggle")
        outputs = Path(folder) / "outputs"
        command = [
            str(waggle),
            "run",
            str(ROOT / "quickstart"),
            "-q",
            "--set",
            f"outputs={outputs}",
        ]
        subprocess.run(command, check=True)
        (run,) = outputs.iterdir()
        (ROOT / "docs" / "terminal.svg").write_text(drawn(run))


def drawn(run: Path) -> str:
    """Return the picture of a run."""
    console = Console(width=84, record=True, file=io.StringIO(), force_terminal=True)
    moments = [0.0]  # of each line on the screen
    console.print(Text.assemble(("$ ", "green"), _COMMAND))
    table, began = RoundTable(["2 workers"]), None
    for event in read_events(run / "events.jsonl"):
        began = began or event.time  # type: ignore[union-attr]
        at = (event.time - began).total_seconds() / _SPEED  # type: ignore[union-attr]
        for line in table.add(event):  # type: ignore[arg-type]
            console.print(line)
            moments.append(0.5 + at)
    record = record_in_short(run)
    assert record is not None  # noqa: S101
    end = moments[-1] + 0.3
    console.print(summary(record, run.parents[1]))
    console.print(Text(f"\n  {next_command(record, 'bee-garden')}", style="bold"))
    svg = console.export_svg(title=_COMMAND)
    return animated(svg, moments, end)


def animated(svg: str, moments: list[float], end: float) -> str:
    """Return a picture whose lines appear one after the other, again and again."""
    total = end + _PAUSE
    rules = []

    def moment_of(number: int) -> float:
        return moments[number] if number < len(moments) else end

    numbers = sorted({int(n) for n in re.findall(r"-line-(\d+)\)", svg)})
    for number in numbers:
        share = 100 * moment_of(number) / total
        rules.append(
            f"@keyframes l{number} {{ 0%, {share:.2f}% {{ opacity: 0 }} "
            f"{share + 0.01:.2f}%, 100% {{ opacity: 1 }} }}\n"
            f".l{number} {{ animation: l{number} {total:.1f}s step-end infinite }}"
        )
    still = "@media (prefers-reduced-motion: reduce) { text { animation: none !important } }"
    svg = re.sub(r'<text class="([^"]*)"([^>]*-line-(\d+)\))', r'<text class="\1 l\3"\2', svg)
    return svg.replace("</style>", "\n".join([*rules, still]) + "\n</style>", 1)


if __name__ == "__main__":
    main()
