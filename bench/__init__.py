"""What the README says about speed, size, cost and losses, measured: `make bench`."""
