"""The controller's side of supervisors: folders, uids, control groups, mounts, adoption, sweeping."""
