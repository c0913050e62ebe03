# SPDX-License-Identifier: Apache-2.0
"""Why there is nothing to show."""


class CannotRun(Exception):
    """This host has not what it takes; the text says what that is."""
