"""Secrets of URLs and of the environment are not shown."""

from __future__ import annotations

import importlib
import io
import logging
import pickle

import pytest

from kit19_ray.errors import SourceError, UserError
from kit19_ray.operate.controller import main as controller
from kit19_ray.redaction import first_line, redacted, without_secrets
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.files import locate
from tests.sources.stranger import spec

SECRET = "https://user:hunter2@host.example/a/rows.tsv?X-Amz-Signature=SECRETSIG#part"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SECRET, "https://host.example/a/rows.tsv"),
        ("https://host.example?token=s", "https://host.example"),
        ("https://a@b@host/x@y", "https://host/x@y"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("/a/b?c", "/a/b?c"),
    ],
)
def test_a_url_keeps_its_place_and_loses_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_where_to_get_a_missing_file_is_said_without_them(tmp_path: object) -> None:
    own = Source.model_validate(spec(files=[{"path": "a.tsv", "split": "train", "url": SECRET}]))
    with pytest.raises(SourceError, match="https://host.example/a/rows.tsv") as told:
        locate("own", own, str(tmp_path), ["train"])
    assert "hunter2" not in str(told.value) and "SECRETSIG" not in str(told.value)


SLASHED = "hunter2/secret#x"


@pytest.mark.parametrize(
    ("name", "value", "text", "shown"),
    [
        ("WANDB_API_KEY", "0123456789abcdef", "key 0123456789abcdef is unknown", "key *** is unknown"),
        ("MLFLOW_TRACKING_TOKEN", "hunter2secret", "Bearer hunter2secret", "Bearer ***"),
        ("MLFLOW_TRACKING_URI", "https://me:hunter2secret@host/x", "401 for me/hunter2secret", "401 for me/***"),
        ("HTTP_PROXY", "http://me:hunter2secret@host:3128", "hunter2secret@host:3128", "***@host:3128"),
        ("https_proxy", "me:hunter2%40secret@host:3128", "hunter2@secret or hunter2%40secret", "*** or ***"),
        ("ALL_PROXY", "socks5://onlyatoken@host:1080", "onlyatoken", "***"),
        ("HTTPS_PROXY", f"http://me:{SLASHED}@host:3128", f"port: 'hunter2', {SLASHED}", "port: '***', ***"),
        ("HTTP_PROXY", "http://me:abc@host:3128", "abc is too short to be sought in every word", None),
        ("HTTP_PROXY", "http://host:3128", "host:3128", None),
    ],
)  # fmt: skip
def test_what_the_environment_holds_is_not_shown(
    name: str, value: str, text: str, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert redacted(text) == (text if shown is None else shown)


def test_an_error_is_redacted_before_it_is_cut() -> None:
    error = OSError("x" * 30 + " http://user:hunter2secret@host.example/ \n more")
    assert "hunter2" not in first_line(error, 50) and first_line(error, 60).endswith("http://host.example/")
    assert first_line(OSError(" \n ")) == "OSError"


def test_an_error_of_ours_holds_no_secret_in_any_form() -> None:
    error = UserError(f"cannot reach {SECRET}", hint=f"mend {SECRET}")
    for form in (str(error), repr(error), str(error.args), pickle.dumps(error).decode("latin-1")):
        assert "hunter2" not in form and "host.example" in form


@pytest.mark.parametrize("logger", ["ray.serve", "kit19_ray.operate.controller.handlers"])
def test_logs_of_servers_hold_no_secrets(logger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    log = logging.getLogger(logger)
    # What Ray and uvicorn, where a test started them, have made of the loggers is not what is looked at here.
    for one in (log, logging.getLogger()):
        monkeypatch.setattr(one, "handlers", [])
        monkeypatch.setattr(one, "disabled", False)
    if logger == "ray.serve":
        log.addHandler(logging.StreamHandler(written))
        assert importlib.import_module("kit19_ray.serve")
    else:
        logging.getLogger().addHandler(logging.StreamHandler(written))
        controller.log_without_secrets()
    try:
        raise ConnectionError(SECRET)
    except ConnectionError as error:
        log.error("%s: %s", "run", error, exc_info=error)
    said = written.getvalue()
    assert "Traceback" in said and said.count("https://host.example") == 2 and "hunter2" not in said
