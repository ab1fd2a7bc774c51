"""Read what people point at (a file, standard input, the text itself); write secrets."""

import os
import sys
from pathlib import Path

from costd.cli.exits import ExitCode, Failure

BYTES_MAX = 16 * 1024 * 1024
SECRET_MODE = 0o600


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


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only its owner can read.

    Errors: Failure; nothing is overwritten.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    except FileExistsError as error:
        raise Failure(f"{path} exists already; keys are never overwritten") from error
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
