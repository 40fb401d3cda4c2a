# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/go
export HOME=/root GOFLAGS=-mod=mod GOPROXY=off
go build -o site .
./site
