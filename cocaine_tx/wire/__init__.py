"""Bytes to meaning and back; no Twisted, no clock, no await."""
