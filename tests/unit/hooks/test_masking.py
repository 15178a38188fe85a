"""Which secrets Airflow's masker knows, and which it has forgotten."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_lakebase.hooks import _masking


@pytest.fixture(autouse=True)
def nothing_is_masked_before() -> Iterator[None]:
    masker = _masking._masker()
    before, replacer = masker.patterns, masker.replacer
    masker.patterns, masker.replacer = set(), None
    _masking.PROCESS_MASKS.forget()
    yield
    _masking.PROCESS_MASKS.forget()
    masker.patterns, masker.replacer = before, replacer


def redact(text: str) -> str:
    return str(_masking._masker().redact(text))


def test_the_newest_credentials_are_masked_however_many_there_were():
    credentials = [f"credential/{secrets.token_urlsafe(30)}" for _ in range(3 * _masking.MAX_MASKED)]
    for credential in credentials:
        _masking.mask_credential(credential)
    for credential in credentials[-_masking.MAX_MASKED :]:
        assert redact(f"it is {credential}") == "it is ***"
        assert redact(f"it is {credential.replace('/', '%2F')}") == "it is ***"
    assert redact(credentials[0]) == credentials[0]
    # Two forms each.
    assert len(_masking._masker().patterns) == 2 * _masking.MAX_MASKED


def test_the_secrets_of_a_connection_stay_masked():
    secret = secrets.token_urlsafe(30)
    _masking.mask(secret)
    for _ in range(100):
        _masking.mask_credential(secrets.token_urlsafe(30))
    assert redact(f"it is {secret}") == "it is ***"


def test_threads_mask_side_by_side():
    credentials = [secrets.token_urlsafe(30) for _ in range(40)]
    threads = [threading.Thread(target=_masking.mask_credential, args=[each]) for each in credentials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(redact(each) == "***" for each in credentials)


def test_a_masker_of_another_layout_keeps_its_masks(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(_masking, "mask_secret", told.append)
    monkeypatch.setattr(_masking, "_masker", lambda: None)
    for number in range(_masking.MAX_MASKED + 5):
        _masking.mask_credential(f"credential-{number}")
    assert len(told) == _masking.MAX_MASKED + 5
