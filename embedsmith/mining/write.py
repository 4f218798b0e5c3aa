"""Writing what was mined in the form that another training library reads."""

from __future__ import annotations

from pathlib import Path

from embedsmith.data.dialects import DialectSettings, ExampleFile, Written, write_dialect
from embedsmith.data.locks import writes_out
from embedsmith.errors import RunError
from embedsmith.runs.origin import check_origin
from embedsmith.runs.run import finished


@writes_out
def write(
    run: str | Path, *, out: str | Path, dialect: str = "jsonl", settings: DialectSettings | None = None
) -> Written:
    """Write the examples of a run in a dialect; what it cannot say is left out and counted.

    Args:
        run: a finished run of `mine` or `select`.
        out: the file, or for `tevatron` and `nemo` the folder, to write.
        dialect: see `embedsmith.data.dialects`.
        settings: how many negatives, scores, the instruction.

    Raises:
        RunError: the run is missing, unfinished or of another command.
        InputError, SettingsError: as `write_dialect`.
    """
    manifest = finished(run)
    path = Path(run) / "negatives.jsonl"
    if not path.is_file():
        raise RunError(
            f"{run}: made by `{manifest['command']}`, wanted a run of `mine` or `select`",
            hint="mine first: embedsmith mine DATA --out RUN",
        )
    check_origin(run)
    return write_dialect(dialect, Path(out), ExampleFile(path), settings)
