# SPDX-License-Identifier: Apache-2.0
"""From a raw call to an understood event: pure, total, never raises."""
