# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""How weak a password is, and what becomes of the hasher's answers."""

from __future__ import annotations

import json

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _password as passwords


@pytest.mark.parametrize(
    "password, reason",
    [
        ("", "fewer than 12 characters"),
        ("Xk9-mm-Plo3", "fewer than 12 characters"),
        ("abababababab", "fewer than 6 different characters"),
        ("123456789012", "rows of the keyboard"),
        ("abcdefghijklmn", "rows of the keyboard"),
        ("nmlkjihgfedcba", "rows of the keyboard"),
        ("qwertyuiop123", "rows of the keyboard"),
        ("1q2w3e4r5t6y", "rows of the keyboard"),
        ("Jupyter-2026!", "a known word"),
        ("Passw0rd2024!!", "a known word"),
        ("p@$$word12345", "a known word"),
        ("AdminAdmin12", "a known word"),
        ("trainyard-jupyter", "a known word"),
    ],
)
def test_weak_passwords_and_why(password: str, reason: str) -> None:
    assert reason in passwords.weakness(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "Xk9-mm-Plo3zz", "x7k2m9q4w8z1", "我们的实验室-GPU服务器-七号", "a1b2c3-x9y8z7-kk"]
)
def test_strong_passwords(password: str) -> None:
    assert passwords.weakness(password) == ""


def test_no_reason_holds_a_part_of_the_password() -> None:
    secret = "kumquat"
    assert secret not in passwords.weakness(secret)
    assert secret not in passwords.RULE


def test_the_question_carries_the_password_whatever_it_holds() -> None:
    odd = "quote\" back\\slash 'single' $HOME \u2603"
    assert json.loads(passwords.question(odd, "old", True)) == {"password": odd, "hash": "old", "only_look": True, "cost": passwords.COST}


def test_answers_of_the_hasher() -> None:
    assert passwords.answer(0, '{"hash": "$argon2id$x"}', "", "/p") == passwords.Answer("$argon2id$x", "")
    missing = "Traceback (most recent call last):\n  File \"<string>\", line 3\nModuleNotFoundError: No module named 'argon2'\n"
    assert passwords.answer(1, "", missing, "/env/bin/python").problem == (
        "/env/bin/python has no argon2-cffi, which makes the hash. Add argon2-cffi to that environment."
    )
    assert passwords.answer(1, "", "MemoryError: too little\n", "/p").problem == "/p could not make the hash: MemoryError: too little"
    assert "status 137" in passwords.answer(137, "", "", "/p").problem
