# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle: the whole state of a host, and what differs between two states. It asks the kernel and the system's own tools; it knows
nothing of the engine that it judges."""
