"""The local stack: AWS by MiniStack, a simulated platform, and the commands that use them."""
