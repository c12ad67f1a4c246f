"""`python -m workflow_trigger_cli`."""

from workflow_trigger_cli.main import main

if __name__ == "__main__":
    main()
