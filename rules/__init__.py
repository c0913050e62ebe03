# SPDX-License-Identifier: Apache-2.0
"""Event documents in, alerts out. Pure; knows documents, not decoders."""
