"""Measurements that documents quote; each is a command."""
