# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/java
javac Main.java
java -cp . Main
