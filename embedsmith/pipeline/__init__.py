"""What calls several parts: the commands on a user's data, a recipe from data to scores, the quickstart."""
