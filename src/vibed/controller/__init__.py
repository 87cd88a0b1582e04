"""Desired to actual: one pure decision and a thin loop of actions for each app."""
