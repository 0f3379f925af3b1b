"""Trainyard's command line tool: brings up labs, applies playbooks to them and shows that they train."""
