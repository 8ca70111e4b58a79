"""Simulated cities and people: visits and GPS points of nobody real."""

from .cities import SimulatedCity, simulate_cities, simulate_city

__all__ = ["SimulatedCity", "simulate_cities", "simulate_city"]
