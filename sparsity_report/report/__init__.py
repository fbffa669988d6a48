"""A study on paper: values and tables for the page, the PDF and the thesis kit."""
