"""What a node is like once it has the base."""


def test_tools_that_keep_a_long_run_alive_run(host):
    assert host.run("tmux -V").rc == 0
    assert "Screen version" in host.run("screen --version").stdout


def test_tools_that_people_miss_on_their_first_day_run(host):
    for command in ("vim --version", "nano --version", "htop --version", "wget --version", "unzip -v", "make --version", "g++ --version"):
        assert host.run(command).rc == 0, command
    assert host.run("man --where man").rc == 0


def test_every_login_can_print_more_than_ascii(host):
    test = 'python3 -c \'import os, sys; print(os.environ["LANG"], sys.stdout.encoding, "\u00e9")\''
    for login in ("su - alice -c", "su alice -c"):
        assert host.check_output(f"env -i PATH=$PATH {login} %s", test) == "C.UTF-8 utf-8 \u00e9", login


def test_the_users_key_is_in_place_and_nobody_elses_to_change(host):
    keys = host.file("/home/alice/.ssh/authorized_keys")
    assert keys.user == "alice"
    assert keys.mode == 0o600
    assert "alice@laptop" in keys.content_string
    assert "lab" in host.user("alice").groups


def test_the_user_has_no_password_that_works(host):
    assert host.user("alice").password.startswith("!")


def test_a_member_of_the_group_writes_into_the_data_folder_and_the_group_is_inherited(host):
    assert host.run("runuser -u alice -- touch /srv/data/hers").rc == 0
    assert host.file("/srv/data/hers").group == "lab"
    assert host.run("runuser -u nobody -- touch /srv/data/his").rc != 0


def test_trainyards_folder_is_roots(host):
    folder = host.file("/opt/trainyard")
    assert (folder.user, folder.mode) == ("root", 0o755)


def test_what_was_installed_is_written_down_for_the_undo(host):
    assert "screen" in host.file("/var/lib/trainyard/packages/base").content_string.split()


def test_every_certificate_authority_of_the_lab_is_in_the_bundle(host):
    bundle = "".join(host.file("/etc/ssl/certs/ca-certificates.crt").content_string.split())
    for path in host.run("ls /usr/local/share/ca-certificates").stdout.split():
        pem = host.file(f"/usr/local/share/ca-certificates/{path}").content_string
        assert "".join(pem.split()) in bundle
