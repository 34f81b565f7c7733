"""Reading only: status, history, explanations and the health of the database."""
