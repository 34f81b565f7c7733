"""The smallest Django project whose orders start workflows, and never one for an order that was rolled back."""
