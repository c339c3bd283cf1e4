"""Machines' doors, one dialect a folder."""
