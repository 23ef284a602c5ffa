"""An exhaustive check of the denylist's protocol: every order of steps, crashes and faults (`./scripts/model`)."""
