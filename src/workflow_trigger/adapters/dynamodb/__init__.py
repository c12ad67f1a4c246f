"""The ledger and the workflows in DynamoDB."""
