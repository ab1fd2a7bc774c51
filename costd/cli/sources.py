"""Read what people point at: a file, standard input, or the text itself."""

import sys
from pathlib import Path

from costd.cli.exits import ExitCode, Failure

BYTES_MAX = 16 * 1024 * 1024


def read_text_or_file(text: str) -> str:
    """Return the text itself, the content of `@FILE`, or standard input for `-`."""
    if text == "-":
        return read_file(text).strip()
    return read_file(text[1:]).strip() if text.startswith("@") else text


def read_file(name: str) -> str:
    """Read a UTF-8 file; `-` is standard input.

    Errors: Failure naming the file and what is wrong with it.
    """
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(BYTES_MAX + 1)
        if len(raw) > BYTES_MAX:
            raise Failure(f"{shown} is larger than {BYTES_MAX} bytes", ExitCode.ERROR)
        return raw.decode("utf-8")
    except OSError as error:
        raise Failure(f"{shown} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{shown} is not UTF-8 text (byte {error.start})") from error
