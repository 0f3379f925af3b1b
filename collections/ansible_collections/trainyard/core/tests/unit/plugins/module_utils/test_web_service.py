# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Wishes that are refused, each by a sentence that names the variable and what would be right."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _web_service as web_service

GOOD: dict[str, Any] = {
    "password": "correct horse battery",
    "listen": "127.0.0.1",
    "port": 8888,
    "tls_certificate": "",
    "tls_key": "",
    "user": "jupyter",
    "uid": "",
    "environments": [{"name": "pytorch", "path": "/opt/envs/pytorch"}],
}


def problems(**wishes: Any) -> str:
    return " ".join(web_service.problems({**GOOD, **wishes}, "jupyter"))


def test_good_wishes_have_no_problem() -> None:
    assert problems() == ""
    assert problems(listen="0.0.0.0") == ""
    assert problems(listen="::1") == ""
    assert problems(port="8888") == ""
    assert problems(default_environment="pytorch", lab_name="AG Müller (3.14), 研究室") == ""


@pytest.mark.parametrize(
    "wishes, says",
    [
        ({"password": ""}, "jupyter_password is not set"),
        ({"password": 123456789012}, "jupyter_password is no text. Put it in quotes"),
        ({"password": ["kumquat"]}, "jupyter_password is no text. Put it in quotes"),
        ({"password": "  "}, "jupyter_password is not set"),
        ({"password": "two\nlines"}, "jupyter_password begins or ends with a space, or holds a line break"),
        ({"password": "from a file\n"}, "jupyter_password begins or ends with a space"),
        ({"password": " spaced"}, "jupyter_password begins or ends with a space"),
        ({"password": "abc"}, "jupyter_password is too weak: it has fewer than 12 characters. Everybody who can log in to the node"),
        ({"listen": "0.0.0.0", "password": "abc"}, "jupyter_password is too weak: it has fewer than 12 characters"),
        ({"listen": "::1", "password": "jupyterlab2026"}, "it is a known word with something added"),
        ({"listen": "192.0.2.7", "password": "jupyterlab2026"}, "it is a known word with something added"),
        ({"password": "short"}, "at least 12 characters, 6 of them different"),
        ({"listen": "everywhere"}, "jupyter_listen is 'everywhere', which is no IP address. Say 127.0.0.1"),
        ({"port": 80}, "jupyter_port is 80: an unprivileged service can have 1024 to 65535."),
        ({"user": "root"}, "jupyter_user is root, the superuser."),
        ({"user": "toor", "uid": 0}, "jupyter_user is toor, the superuser."),
        ({"user": "A b"}, "jupyter_user is 'A b', which is no name for an account"),
        ({"login": "a:b"}, "jupyter_login is 'a:b'"),
        ({"lab_name": 'a "lab"'}, "jupyter_lab_name is 'a \"lab\"'. A lab's name has 1 to 255 letters, digits, spaces and"),
        ({"lab_name": "50%"}, "jupyter_lab_name is '50%'"),
        ({"lab_name": "two\nlines"}, "jupyter_lab_name is 'two"),
        ({"lab_name": ""}, "jupyter_lab_name is ''"),
        ({"default_environment": "torch"}, "jupyter_default_environment: 'torch' is not in jupyter_environments. Known: pytorch."),
        ({"default_environment": "torch", "environments": []}, "is not in jupyter_environments. Known: none."),
        ({"tls_certificate": "/a.pem"}, "jupyter_tls_certificate is set and jupyter_tls_key is not. Set both"),
        ({"tls_key": "/a.key"}, "jupyter_tls_key is set and jupyter_tls_certificate is not. Set both"),
        (
            {"tls_certificate": "/no/a.pem", "tls_key": "/no/a.key"},
            "jupyter_tls_certificate is /no/a.pem, a file on the controller that cannot be read",
        ),
        ({"environments": [{"name": "x", "path": "/x"}] * 2}, "jupyter_environments names x twice."),
        ({"environments": [{"name": "x", "path": "x"}]}, "the path of x is 'x', it must start with /."),
        ({"environment_folders": ["/srv/envs", "envs"]}, "jupyter_environment_folders: 'envs' is no absolute path: it must start with /."),
        ({"hidden_environments": ["~/old"]}, "jupyter_hidden_environments: '~/old' is no absolute path: it must start with /."),
        ({"environments": [{"name": "../x", "path": "/x"}]}, "'../x' is no name for a kernel"),
    ],
)
def test_each_problem_is_said(wishes: dict[str, Any], says: str) -> None:
    assert says in problems(**wishes)


def test_several_problems_are_said_at_once() -> None:
    assert len(web_service.problems({**GOOD, "port": 1, "password": ""}, "jupyter")) == 2


def test_no_sentence_holds_the_password() -> None:
    assert "kumquat" not in problems(password="kumquat", listen="0.0.0.0", port=1, user="root")


def make_pair(folder: Path, name: str) -> tuple[str, str]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", f"/CN={name}"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return str(certificate), str(key)


def test_a_given_pair_is_looked_at_on_the_controller(tmp_path: Path) -> None:
    one, two = make_pair(tmp_path, "one"), make_pair(tmp_path, "two")
    assert problems(tls_certificate=one[0], tls_key=one[1]) == ""
    assert problems(tls_certificate=one[0], tls_key=two[1]) == (
        "jupyter_tls_certificate and jupyter_tls_key cannot be used: the key does not belong to the certificate."
    )
    (tmp_path / "vaulted").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    assert problems(tls_certificate=one[0], tls_key=str(tmp_path / "vaulted")) == ""
