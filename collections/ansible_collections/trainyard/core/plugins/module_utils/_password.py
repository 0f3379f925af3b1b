# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Passwords: how weak one is, and how a hash of one is made without the password touching a command line."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

STRONG_LENGTH = 12
STRONG_DISTINCT = 6
RULE = (
    f"at least {STRONG_LENGTH} characters, {STRONG_DISTINCT} of them different, and is neither a known word with something added "
    "nor a row of the keyboard"
)

# What is left of a bad password when digits, punctuation and the usual look-alikes are taken off.
_KNOWN = """
    abc admin administrator changeit changeme default deeplearning demo geheim guest hello iloveyou jupyter jupyterhub jupyterlab
    lab letmein login master monkey nimda notebook nvidia pass passwd password passwort pytorch qwerty root sammy secret sesame
    student super superman superuser teacher tensorboard tensorflow test toor trainyard training user welcome woaini
"""
KNOWN = frozenset(_KNOWN.split())
ROWS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
)
LOOK_ALIKES = str.maketrans("01345$@!7", "oleassait")


def weakness(password: str) -> str:
    """Return why a password must not guard a service, or an empty string.

    The sentence says nothing of the password but which rule it breaks.
    """
    lower = password.lower()
    if len(password) < STRONG_LENGTH:
        return f"it has fewer than {STRONG_LENGTH} characters"
    if len(set(lower)) < STRONG_DISTINCT:
        return f"it has fewer than {STRONG_DISTINCT} different characters"
    bare = re.sub(r"[^a-z0-9]", "", lower)
    runs = re.findall(r"[a-z]+|[0-9]+", bare)
    if _is_row(bare) or all(len(run) >= 3 and _is_row(run) for run in runs):
        return "it is made of rows of the keyboard or the alphabet"
    middle = re.sub(r"^[^a-z]+|[^a-z]+$", "", lower)
    for reading in (lower, middle.translate(LOOK_ALIKES)):
        letters = re.sub(r"[^a-z]", "", reading)
        if letters in KNOWN or _made_of_known_words(letters):
            return "it is a known word with something added"
    return ""


def _is_row(text: str) -> bool:
    return any(text in row or text in row[::-1] for row in ROWS)


def _made_of_known_words(letters: str) -> bool:
    """Return whether nothing but known words, one after another, make up the letters."""
    reachable = {0}
    for end in range(1, len(letters) + 1):
        if any(start in reachable and letters[start:end] in KNOWN for start in range(end)):
            reachable.add(end)
    return bool(letters) and len(letters) in reachable


# What the OWASP cheat sheet on password storage recommends for Argon2id (read 2026-11-21): 19 MiB, 2 passes, 1 lane. Every run asks on
# every node whether the hash is still the password's, so more would be paid each time; weak passwords are refused.
COST = {"memory_cost": 19456, "time_cost": 2, "parallelism": 1}

# Runs in an interpreter that has argon2-cffi; both the question and the answer go through pipes.
HASHER = """
import json, sys
import argon2
wish = json.load(sys.stdin)
hasher = argon2.PasswordHasher(**wish["cost"])
kept = ""
try:
    made = argon2.extract_parameters(wish["hash"])
    strong = made.type == hasher.type and made.memory_cost * made.time_cost >= hasher.memory_cost * hasher.time_cost
    if strong and hasher.verify(wish["hash"], wish["password"]):
        kept = wish["hash"]
except (argon2.exceptions.InvalidHash, argon2.exceptions.VerificationError, ValueError):
    pass
json.dump({"hash": kept or ("" if wish["only_look"] else hasher.hash(wish["password"]))}, sys.stdout)
"""


class Answer(NamedTuple):
    """What became of a question to the hasher: the hash to be on disk ('' when one would have to be made), or what went wrong."""

    hash: str
    problem: str


def question(password: str, stored: str, only_look: bool) -> str:
    """Return the hasher's input: keep a stored hash that is the password's and of today's strength, else make one unless ``only_look``."""
    return json.dumps({"password": password, "hash": stored, "only_look": only_look, "cost": COST})


def answer(status: int, output: str, errors: str, python: str) -> Answer:
    """Read what the hasher printed."""
    if status == 0:
        return Answer(str(json.loads(output)["hash"]), "")
    if "No module named 'argon2'" in errors:
        return Answer("", f"{python} has no argon2-cffi, which makes the hash. Add argon2-cffi to that environment.")
    lines = errors.strip().splitlines()
    return Answer("", f"{python} could not make the hash: {lines[-1] if lines else f'it ended with status {status}'}")
