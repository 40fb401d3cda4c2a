# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of real hosts. Imports nothing of the engine that it is there to judge."""
