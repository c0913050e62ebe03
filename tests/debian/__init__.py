# SPDX-License-Identifier: Apache-2.0
"""The Debian package in a Debian of its own, with systemd: ``make test-deb``.

What makes guests is of ``kernels``; here a guest's root is not the host's, but a small system
of the same release with all that the package depends on, so that it needs no network.
"""
