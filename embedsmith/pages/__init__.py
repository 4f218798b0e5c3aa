"""Drawing of pages, charts and Markdown; knows nothing of what is drawn."""
