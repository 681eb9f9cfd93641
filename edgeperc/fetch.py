"""Model files by URL or from a disk: checked by sha256, in place all at once.

A download goes on where it broke off.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edgeperc.config import ModelCard
from edgeperc.errors import ModelError
from edgeperc.places import sha256 as sha256_of

CHUNK = 1 << 18
STALLED_S = 30.0
RETRY_S = 1.0


class _BrokenOffError(Exception):
    """The connection broke off; what came before it is in the file."""


def pull(card: ModelCard, folder: Path) -> None:
    """Download all files of `card` that have a URL into `folder`. Raises ModelError."""
    entries = [entry for entry in card.files if entry.url]
    if not entries:
        raise ModelError(f"model '{card.name}' names no URL to pull from")
    for entry in entries:
        target = _inside(folder, entry.path, card)
        fetch(entry.url, target, sha256=entry.sha256, bytes=entry.bytes)


def pull_checkpoint(card: ModelCard, folder: Path) -> Path:
    """Download the weights of [checkpoint] into `folder`; returns where they are.

    Raises ModelError, also if the card names no URL.
    """
    wanted = card.checkpoint
    if wanted is None or not wanted.url:
        raise ModelError(f"model '{card.name}' names no URL to pull from")
    target = _inside(folder, Path(urllib.parse.urlsplit(wanted.url).path).name, card)
    fetch(wanted.url, target, sha256=wanted.sha256, bytes=wanted.bytes)
    return target


def bring(card: ModelCard, source: Path, folder: Path) -> Path:
    """Copy `source`, a file that `card` names by sha256, into `folder`; returns where it is now.

    Raises ModelError if it is none of the card's files, or cannot be read or written.
    """
    known = [entry for entry in card.files if entry.sha256]
    if not known:
        raise ModelError(f"model '{card.name}' names no file by sha256")
    try:
        found = sha256_of(source)
        entry = next((entry for entry in known if entry.sha256 == found), None)
        if entry is None:
            wanted = ", ".join(f"{entry.path} with {entry.sha256}" for entry in known)
            raise ModelError(
                f"{source} is not a file of model '{card.name}': its sha256 is {found}",
                hint=f"the card names {wanted}",
            )
        target = _inside(folder, entry.path, card)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(source, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        where = error.filename or source
        raise ModelError(f"cannot copy {where}: {error.strerror or error}") from error
    return target


def _inside(folder: Path, path: str, card: ModelCard) -> Path:
    target = folder / path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"model '{card.name}': path '{path}' leads out of its folder")
    return target


def fetch(url: str, target: Path, *, sha256: str, bytes: int = 0) -> None:
    """Download `url` to `target`, unless it is there already.

    sha256: 64 hex digits that the file must have. bytes: its size, 0 = unknown. `target` appears
    when it is complete and checked; until then the data waits in `*.part` beside it, where the next
    call goes on. Calls for one target wait for each other, in other processes, too. Raises
    ModelError with what to do.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ModelError(f"{url} comes without a sha256, so nobody could tell what it is")
    if not url.startswith(("https://", "http://")):
        raise ModelError(f"{url}: only http and https are fetched")
    try:
        if _is_there(target, sha256):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target.with_name(f"{target.name}.{sha256[:12]}.part")) as part:
            if not _is_there(target, sha256):  # another process may have done it meanwhile
                _complete(url, part, sha256, bytes)
                os.replace(part.name, target)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}") from error


def _is_there(target: Path, sha256: str) -> bool:
    return target.is_file() and sha256_of(target) == sha256


@contextmanager
def _exclusive(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for appending, for one caller at a time; it is not left behind empty."""
    while True:
        part = path.open("a+b")
        _lock(part, path)
        if _is_at(path, part):
            break
        part.close()  # whoever had it finished and moved it away
    with part:
        try:
            yield part
        finally:
            if _is_at(path, part) and path.stat().st_size == 0:
                path.unlink()


def _is_at(path: Path, part: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(part.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(part: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another download of {path.name}", file=sys.stderr)
        fcntl.flock(part, fcntl.LOCK_EX)


def _complete(url: str, part: IO[bytes], sha256: str, size: int) -> None:
    """Append to `part` until it is the file wanted; start anew if its beginning was not."""
    resumed = part.seek(0, os.SEEK_END) > 0
    _receive(url, part, size)
    if resumed and sha256_of(Path(part.name)) != sha256:
        part.truncate(0)
        _receive(url, part, size)
    found = sha256_of(Path(part.name))
    if found != sha256:
        part.truncate(0)
        raise ModelError(
            f"{url} is not the file that is wanted: its sha256 is {found}, not {sha256}",
            hint="it was removed; ask whoever offers it, or correct the sha256 in model.toml",
        )


def _receive(url: str, part: IO[bytes], size: int) -> None:
    """Request what is missing as often as that brings us on."""
    name = Path(part.name).name.rsplit(".", 2)[0]
    with _progress() as progress:
        task = progress.add_task(name, total=size or None)
        while True:
            start = part.seek(0, os.SEEK_END)
            try:
                for done, total in _request(url, part, size):
                    progress.update(task, completed=done, total=total)
                break
            except _BrokenOffError as error:
                if part.seek(0, os.SEEK_END) <= start:
                    raise ModelError(
                        f"{url} cannot be reached: {error}",
                        hint="check the network and try again; what has come already is kept",
                    ) from error
                time.sleep(RETRY_S)
    part.flush()
    os.fsync(part.fileno())


def _request(url: str, part: IO[bytes], size: int) -> Iterator[tuple[int, int | None]]:
    """One request for the rest of the file; yields (bytes done, bytes in all) on the way."""
    done = part.seek(0, os.SEEK_END)
    if size and done > size:
        done = part.truncate(0)
    if size and done == size:
        return
    with _open(url, done) as response:
        if response.status == 416:
            return  # nothing comes after this byte: is it complete? The hash will tell
        if done and response.status != 206:
            done = part.truncate(0)  # the server sends all of it, whatever was asked
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else size or None
        _check_size(url, part, done=done, total=total, size=size)
        for chunk in _chunks(response):
            part.write(chunk)
            done += len(chunk)
            yield done, total
            if total and done > total:
                break  # endless; the hash will say no
    if total and done < total:
        raise _BrokenOffError("the connection broke off")


def _open(url: str, start: int) -> Any:
    """Ask for `url` from byte `start` on; a response of status 200, 206 or 416."""
    headers = {"User-Agent": "edgeperc", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=STALLED_S
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return error
        raise _refused(url, error) from error
    except urllib.error.URLError as error:
        raise _BrokenOffError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error)) from error
    begins = response.headers.get("Content-Range", f"bytes {start}-").startswith(f"bytes {start}-")
    if response.status == 206 and not begins:
        response.close()
        return _open(url, 0)  # not what was asked for: take all of it, from the beginning
    return response


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk: bytes = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(str(error)) from error
        if not chunk:
            return
        yield chunk


def _check_size(url: str, part: IO[bytes], *, done: int, total: int | None, size: int) -> None:
    if size and total != size:
        raise ModelError(
            f"{url} has {total} bytes, but {size} are wanted",
            hint="the file there has changed; correct `bytes` and `sha256` in model.toml",
        )
    free = shutil.disk_usage(Path(part.name).parent).free
    if total and total - done > free:
        raise ModelError(
            f"{part.name}: {total - done} bytes are to come, but {free} are free",
            hint="make room and try again; what has come already is kept",
        )


def _refused(url: str, error: urllib.error.HTTPError) -> ModelError:
    if error.code in (408, 429) or error.code >= 500:
        hint = "the server is in trouble; try again later, what has come already is kept"
    else:
        hint = "is the URL in model.toml right?"
    return ModelError(f"{url}: the server answers {error.code} {error.reason}", hint=hint)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
