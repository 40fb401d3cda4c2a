#!/bin/sh
# sets up the report directory: called with the number of reports
set -e
mkdir -p /srv/reports
i=0
while [ "$i" -lt "$1" ]; do
    i=$((i + 1))
    echo "report $i by $(id -un) in $(pwd)" > "/srv/reports/report-$i"
done
chmod 0750 /srv/reports
ln -sfn /srv/reports /srv/app/reports
rm -f /opt/legacy/bin/tool-1.txt /opt/legacy/bin/tool-2.txt
sed -i 's/info/debug/' /etc/app/app.conf
