"""What sshd's configuration should be, judged without an sshd."""

from __future__ import annotations

import base64
import re
import subprocess

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _sshd
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Account, RefusalError

TODAY = 20000
DEBIAN = (
    "# comment\n\nInclude /etc/ssh/sshd_config.d/*.conf\n\nUsePAM yes\nX11Forwarding yes\nSubsystem\tsftp\t/usr/lib/openssh/sftp-server\n"
)
DEFAULTS = {
    name.lower(): ["x"] for name in [*_sshd.PROFILES["modern"], *_sshd.PROFILES["cis"], "KexAlgorithms", "MACs", "HostKey", "ModuliFile"]
}
BOOKWORM = {**DEFAULTS, "kexalgorithms": ["sntrup761x25519-sha512,curve25519-sha256"]}
TRIXIE = {**DEFAULTS, "kexalgorithms": ["mlkem768x25519-sha256,sntrup761x25519-sha512"]}
OURS = _sshd.DROP_INS[0]
CLOUD = "/etc/ssh/sshd_config.d/50-cloud-init.conf"


def wanted(**deviations):
    return _sshd.wanted_settings("modern", deviations, ["/etc/ssh/ssh_host_ed25519_key"], BOOKWORM)


# --- the wish ---


def test_the_exchanges_follow_what_the_server_knows():
    assert "diffie-hellman-group-exchange-sha256" in wanted()["KexAlgorithms"][0]
    assert wanted()["ModuliFile"] == [_sshd.STRONG_MODULI]
    newer = _sshd.wanted_settings("modern", {}, [], TRIXIE)
    assert newer["KexAlgorithms"] == ["mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com"]
    assert "ModuliFile" not in newer


def test_what_the_server_does_not_know_is_left_out_of_the_profile_but_not_out_of_the_deviations():
    older = {name: value for name, value in BOOKWORM.items() if name != "requiredrsasize"}
    assert "RequiredRSASize" not in _sshd.wanted_settings("modern", {}, [], older)
    assert _sshd.wanted_settings("modern", {"RequiredRSASize": 3072}, [], older)["RequiredRSASize"] == ["3072"]


@pytest.mark.parametrize(
    ("value", "lines"),
    [(2222, ["2222"]), ([22, 2222], ["22", "2222"])],
)
def test_a_repeated_keyword_stands_on_a_line_each(value, lines):
    assert wanted(Port=value)["Port"] == lines


def test_values_are_written_as_sshd_reads_them():
    found = wanted(AllowUsers=["a", "b"], Ciphers=["x", "y"], PermitRootLogin="prohibit-password", x11forwarding=True, PermitTunnel=None)
    assert found["AllowUsers"] == ["a b"]
    assert found["Ciphers"] == ["x,y"]
    assert found["PermitRootLogin"] == ["prohibit-password"]
    assert found["x11forwarding"] == ["yes"]
    assert "X11Forwarding" not in found
    assert "PermitTunnel" not in found


@pytest.mark.parametrize(
    ("deviations", "message"),
    [
        ({"AllowUsers": []}, "ssh_hardening_config.AllowUsers names nobody"),
        ({"AllowGroups": ""}, "ssh_hardening_config.AllowGroups names nobody"),
        ({"Match": "all"}, "ssh_hardening_config.Match can't be set here"),
        ({"include": "x"}, "ssh_hardening_config.include can't be set here"),
        ({"Port 22\nPermitRootLogin": "yes"}, "can't be set here"),
        ({"Banner": "x\ny"}, "ssh_hardening_config.Banner must be on one line"),
        ({"Banner": {"a": 1}}, "ssh_hardening_config.Banner must be a string"),
        ({"Banner": [["a"]]}, "ssh_hardening_config.Banner must be a string"),
    ],
)
def test_a_deviation_that_no_drop_in_can_carry_is_refused(deviations, message):
    with pytest.raises(RefusalError, match=message):
        wanted(**deviations)


def test_what_a_match_block_could_loosen_stands_in_a_match_block_of_ours():
    text = _sshd.drop_in("modern", wanted())
    block = text.partition("Match all\n")[2]
    assert "    PasswordAuthentication no\n" in block
    assert "    PermitRootLogin no\n" in block
    assert "Ciphers" not in block


# --- files ---


def test_the_drop_in_comes_first_and_goes_without_a_trace():
    files = {_sshd.MAIN: DEBIAN, CLOUD: "PasswordAuthentication yes\n"}
    placed = _sshd.place(files, "PasswordAuthentication no\n")
    assert placed[_sshd.MAIN] == DEBIAN
    assert [line.path for line in _sshd.settings(placed)][:2] == [OURS, CLOUD]
    assert _sshd.place(placed, "PasswordAuthentication no\n") == placed
    assert _sshd.remove(placed) == files


@pytest.mark.parametrize("name", ["00-a.conf", "0.conf", "+x.conf"])
def test_the_drop_in_comes_before_a_name_that_sorts_before_it(name):
    files = {_sshd.MAIN: DEBIAN, f"{_sshd.FOLDER}/{name}": "PasswordAuthentication yes\n"}
    placed = _sshd.place(files, "PasswordAuthentication no\n")
    assert next(_sshd.settings(placed)).path == _sshd.DROP_INS[1]
    assert _sshd.remove(placed) == files


@pytest.mark.parametrize(
    "main",
    [
        "PasswordAuthentication yes\n",
        "PasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22\n",
        "PasswordAuthentication yes\nInclude sshd_config.d/*.conf\n",
        "PasswordAuthentication yes\nMatch User bob\n  Include /etc/ssh/sshd_config.d/*.conf\n",
        'Include /etc/ssh/other.conf\nInclude = "/etc/ssh/sshd_config.d/*.conf"\n',
        "",
    ],
)
def test_the_include_comes_to_the_top_and_goes_back(main):
    files = {_sshd.MAIN: main, "/etc/ssh/other.conf": "PasswordAuthentication yes\n"}
    placed = _sshd.place(files, "PasswordAuthentication no\n")
    first = next(_sshd.settings(placed))
    assert (first.path, first.matched) == (OURS, False)
    assert len([line for line in _sshd.settings(placed) if line.path == OURS and not line.matched]) == 1
    assert _sshd.place(placed, "PasswordAuthentication no\n") == placed
    assert _sshd.remove(placed) == files


def test_a_folder_that_nobody_included_stays_unread():
    files = {_sshd.MAIN: "UsePAM yes\n", CLOUD: "PasswordAuthentication yes\n"}
    assert CLOUD not in {line.path for line in _sshd.settings(_sshd.place(files, "Port 22\n"))}


def test_the_copy_leads_its_includes_into_itself():
    found = _sshd.staged({_sshd.MAIN: "Include sshd_config.d/*.conf /opt/x.conf\nPort 22\n"}, "/run/copy")
    assert found == {"/run/copy/etc/ssh/sshd_config": 'Include "/run/copy/etc/ssh/sshd_config.d/*.conf" "/run/copy/opt/x.conf"\nPort 22\n'}


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        (
            "/run/c/etc/ssh/sshd_config: line 3: Bad configuration option: Foo\r\n/run/c/etc/ssh/sshd_config: terminating, 1 bad",
            ("/etc/ssh/sshd_config", 3),
        ),
        ('/run/c/etc/ssh/sshd_config line 7: no argument after keyword "Port"', ("/etc/ssh/sshd_config", 7)),
        ('/run/c/etc/ssh/sshd_config.d/10-x.conf line 2: unsupported option "maybe".', ("/etc/ssh/sshd_config.d/10-x.conf", 2)),
        ("/run/c/etc/ssh/sshd_config line 9: Deprecated option UsePrivilegeSeparation", None),
        ("Missing privilege separation directory: /run/sshd", None),
        ("sshd: no hostkeys available -- exiting.", None),
    ],
)
def test_sshds_complaints_are_understood(errors, place):
    found = _sshd.complaint(errors, "/run/c")
    assert (found[:2] if found else None) == place


def test_a_line_that_is_switched_off_keeps_its_text():
    files = _sshd.switch_off({_sshd.MAIN: "Port 22\nFoo bar\nUsePAM yes\n"}, _sshd.MAIN, 2)
    assert files[_sshd.MAIN].splitlines()[1].endswith(": Foo bar")
    assert [line.keyword for line in _sshd.settings(files)] == ["port", "usepam"]


# --- host keys and moduli ---


def rsa(bits, tmp_path):
    path = tmp_path / f"rsa{bits}"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", str(bits), "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def test_the_size_of_an_rsa_key_is_read_from_its_public_half(tmp_path):
    assert _sshd.rsa_bits(rsa(2048, tmp_path)) == 2048
    assert _sshd.rsa_bits("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE x") == 0
    assert _sshd.rsa_bits("") == 0
    assert _sshd.rsa_bits("ssh-rsa !!!") == 0


def test_host_keys_that_clients_know_stay_where_they_are_good_enough():
    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    def public(bits: int) -> str:
        blob = field(b"ssh-rsa") + field(b"\1\0\1") + field(b"\0" + (1 << (bits - 1)).to_bytes(bits // 8, "big"))
        return "ssh-rsa " + base64.b64encode(blob).decode()

    weak, strong, edwards = ("/a", public(3072)), ("/b", public(4096)), ("/c", "ssh-ed25519 AAAA")
    assert _sshd.host_keys([weak, strong, edwards]) == ["/c", "/b"]
    assert _sshd.host_keys([weak, edwards]) == ["/c", _sshd.RSA_KEY]
    assert _sshd.host_keys([]) == [_sshd.ED25519_KEY, _sshd.RSA_KEY]


def test_short_moduli_are_left_out():
    text = "# Time Type\n20230101 2 6 100 2047 5 AAA\n20230101 2 6 100 3071 2 BBB\n20230101 2 6 100 8191 2 CCC\nnonsense\n"
    assert [line.split()[-1] for line in _sshd.strong_moduli(text).splitlines()] == ["BBB", "CCC"]


# --- who gets in ---

RULES = {
    "permitrootlogin": ["no"],
    "passwordauthentication": ["no"],
    "kbdinteractiveauthentication": ["no"],
    "pubkeyauthentication": ["yes"],
    "usepam": ["yes"],
}


def admin(**more):
    return Account(**{"name": "admin", "keys": 1, "groups": ["admin", "sudo"], "key_files": ["/home/admin/.ssh/authorized_keys"], **more})


def test_an_ordinary_admin_gets_in():
    assert _sshd.kept_out(admin(password="!"), RULES, TODAY) == []


@pytest.mark.parametrize(
    ("account", "rules", "message"),
    [
        (admin(keys=0), {}, "'admin' has no key on this node, and passwords are being switched off"),
        (admin(name="root", uid=0), {}, "logs in as root, and PermitRootLogin is to be 'no'"),
        (admin(name="root", uid=0), {"permitrootlogin": ["forced-commands-only"]}, "forced-commands-only"),
        (admin(), {"allowusers": ["bob", "eve"]}, r"AllowUsers \(bob eve\) does not let 'admin' in"),
        (admin(), {"allowusers": ["!admin", "*"]}, r"AllowUsers \(!admin \*\) does not let 'admin' in"),
        (admin(), {"allowgroups": ["wheel"]}, r"AllowGroups \(wheel\) does not let 'admin' in"),
        (admin(), {"denyusers": ["adm?n"]}, "DenyUsers .* keeps 'admin' out"),
        (admin(), {"denygroups": ["sudo"]}, "DenyGroups .* keeps 'admin' out"),
        (admin(password="!x"), {"usepam": ["no"]}, "The account 'admin' is locked"),
        (admin(expires=18262), {}, "The account 'admin' expired on 2020-01-01"),
        (admin(shell="/usr/sbin/nologin"), {}, "has the shell /usr/sbin/nologin"),
        (admin(shell="/bin/gone", shell_runs=False), {}, "has the shell /bin/gone"),
        (admin(), {"pubkeyauthentication": ["no"]}, "Neither keys nor passwords"),
    ],
)
def test_who_is_kept_out_is_told_why(account, rules, message):
    [said] = _sshd.kept_out(account, {**RULES, **rules}, TODAY)
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("account", "rules"),
    [
        (admin(keys=0), {"passwordauthentication": ["yes"]}),
        (admin(keys=0), {"trustedusercakeys": ["/etc/ssh/ca.pub"]}),
        (admin(keys=0), {"authorizedkeyscommand": ["/usr/bin/keys"]}),
        (admin(name="root", uid=0), {"permitrootlogin": ["without-password"]}),
        (admin(), {"allowusers": ["admin@10.*"]}),
        (admin(), {"denyusers": ["admin@10.*"]}),
        (admin(), {"allowgroups": ["su*"]}),
        (admin(expires=TODAY + 1), {}),
        (admin(password="*"), {"usepam": ["no"]}),
    ],
)
def test_nobody_is_kept_out_for_nothing(account, rules):
    assert _sshd.kept_out(account, {**RULES, **rules}, TODAY) == []


def test_authorized_keys_are_looked_for_where_sshd_looks():
    rules = {"authorizedkeysfile": [".ssh/authorized_keys /etc/keys/%u %h/x/%U%%"]}
    assert _sshd.key_files("ann", "/home/ann", 7, rules) == ["/home/ann/.ssh/authorized_keys", "/etc/keys/ann", "/home/ann/x/7%"]
    assert _sshd.key_files("ann", "/home/ann", 7, {"authorizedkeysfile": ["none"]}) == []
    assert _sshd.count_keys("# no\n\nssh-ed25519 AAAA a\nssh-rsa AAAA b\n") == 2


# --- what wins ---


def test_the_line_that_wins_is_named():
    files = {_sshd.MAIN: DEBIAN, OURS: "AllowUsers admin\n", CLOUD: "# x\nAllowUsers eve\n"}
    [said] = _sshd.overridden(files, ["AllowUsers"], {"allowusers": ["admin"]}, {"allowusers": ["admin", "eve"]})
    assert "AllowUsers would be 'admin, eve' instead of 'admin': /etc/ssh/sshd_config.d/50-cloud-init.conf line 2 wins" in said


def test_the_daemons_own_option_is_named():
    options = _sshd.daemon_options("sshd: /usr/sbin/sshd -D -o UsePAM=no -p 2022 -4 -oBanner=x [listener] 0 of 10-100 startups")
    assert options == ["-o", "UsePAM=no", "-p", "2022", "-oBanner=x"]
    [said] = _sshd.overridden({_sshd.MAIN: "UsePAM yes\n"}, ["UsePAM"], {"usepam": ["yes"]}, {"usepam": ["no"]}, options=options)
    assert "the daemon's own option" in said
    assert "line" not in said


def test_the_order_of_addresses_and_more_host_keys_do_not_matter():
    expected = {"listenaddress": ["0.0.0.0:22", "[::]:22"], "hostkey": ["/a"]}
    actual = {"listenaddress": ["[::]:22", "0.0.0.0:22"], "hostkey": ["/a", "/b"]}
    assert _sshd.overridden({}, ["ListenAddress", "HostKey"], expected, actual) == []


def test_addresses_and_sockets_are_read():
    assert _sshd.listen_targets({"listenaddress": ["0.0.0.0:22", "[::1]:2222", "10.0.0.1:22 rdomain x"]}) == [
        ("0.0.0.0", 22),
        ("::1", 2222),
        ("10.0.0.1", 22),
    ]
    assert _sshd.socket_ports("[::]:22 (Stream)") == {22}
    assert _sshd.socket_ports("0.0.0.0:2022 (Stream)\n/run/x (Stream)") == {2022}


def test_the_offer_of_a_live_daemon_is_read_and_judged():
    lists = ["curve25519-sha256,kex-strict-s-v00@openssh.com", "ssh-ed25519", "a", "aes256-ctr", "b", "hmac-sha1"]
    message = bytes([20]) + bytes(16) + b"".join(len(names).to_bytes(4, "big") + names.encode() for names in lists)
    offer = _sshd.kexinit(message)
    rules = {
        "kexalgorithms": ["curve25519-sha256"],
        "hostkeyalgorithms": ["ssh-ed25519"],
        "ciphers": ["aes256-ctr"],
        "macs": ["hmac-sha2-256"],
    }
    assert _sshd.still_offered(offer, rules) == ["the running sshd still offers hmac-sha1 (macs)"]
    with pytest.raises(ValueError, match="KEXINIT"):
        _sshd.kexinit(b"\x01")


# --- the way back ---


def test_the_way_back_is_a_script_that_a_shell_understands():
    script = _sshd.ROLLBACK.script(
        {"/etc/ssh/sshd_config": "/var/x/0"},
        ["/etc/ssh/sshd_config.d/!00-trainyard.conf"],
        _sshd.renewal("ssh.service", "/usr/sbin/sshd"),
    )
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert script.index("mv -f /etc/ssh/sshd_config.old") < script.index("systemctl reload")
    assert "rm -f '/etc/ssh/sshd_config.d/!00-trainyard.conf'" in script


def test_the_timer_counts_from_its_start_and_from_a_reboot():
    units = _sshd.ROLLBACK.units(45)
    assert "OnActiveSec=45s" in units["/etc/systemd/system/trainyard-ssh-rollback.timer"]
    assert "WantedBy=timers.target" in units["/etc/systemd/system/trainyard-ssh-rollback.timer"]
