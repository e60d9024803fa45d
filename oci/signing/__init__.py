"""Signatures: keys, cosign's formats, and the policy that asks for them."""
