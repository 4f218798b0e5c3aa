"""What calls several parts: mining, training and evaluating a user's data, a recipe from data to scores, the quickstart."""
