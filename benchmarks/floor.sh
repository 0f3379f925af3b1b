#!/bin/sh
# The floor: what an expert would type to bring the same things to a node, by hand, without any of the checks. Runs on the node as root.
# /tmp/floor holds the locks, the proofs, the certificate authorities and the files of the services.
set -eu
export DEBIAN_FRONTEND=noninteractive SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
cp /tmp/floor/ca/* /usr/local/share/ca-certificates/ 2>/dev/null || true
apt-get -q update
apt-get -q -y --no-install-recommends install tmux screen vim nano less htop wget curl unzip rsync git man-db build-essential ca-certificates python3-venv libgomp1
echo LANG=C.UTF-8 >/etc/default/locale
update-ca-certificates
mkdir -p /opt/trainyard/envs /srv/data
python3 -m venv /opt/trainyard/uv
/opt/trainyard/uv/bin/pip install --quiet --require-hashes -r /tmp/floor/locks/installer.txt
export UV_CACHE_DIR=/opt/trainyard/cache/uv PATH="/opt/trainyard/uv/bin:$PATH"
for name in tensorflow pytorch keras paddle jax jupyterlab tensorboard; do
    uv venv --quiet --python /usr/bin/python3 "/opt/trainyard/envs/$name"
    uv pip sync --quiet --require-hashes --compile-bytecode --find-links /srv/wheelhouse --python "/opt/trainyard/envs/$name/bin/python" "/tmp/floor/locks/$name.txt"
done
printf 'PasswordAuthentication no\nPermitRootLogin no\n' >/etc/ssh/sshd_config.d/00-floor.conf
sshd -t
systemctl reload ssh
useradd --create-home jupyter
printf '[Service]\nUser=jupyter\nExecStart=/opt/trainyard/envs/jupyterlab/bin/jupyter-lab --no-browser --port 8888\n[Install]\nWantedBy=multi-user.target\n' \
    >/etc/systemd/system/jupyter.service
printf '[Service]\nUser=jupyter\nExecStart=/opt/trainyard/envs/tensorboard/bin/tensorboard --logdir /srv/data --port 6006\n[Install]\nWantedBy=multi-user.target\n' \
    >/etc/systemd/system/tensorboard.service
systemctl daemon-reload
systemctl enable --now jupyter.service tensorboard.service
cd /tmp/floor/proofs
for name in tensorflow pytorch keras paddle jax; do
    runuser -u nobody -- env HOME=/tmp "/opt/trainyard/envs/$name/bin/python" "train_$name.py"
done
