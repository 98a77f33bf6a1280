"""Storms: many clients that do the same hurtful thing, by numbers and a seed; small in the tests, large in a soak."""
