"""Pictures (matplotlib) and web maps (folium) of frames and models; both are the lazy extra `hf_mobility[plot]`."""

from .pictures import plot_flows, plot_next_places, plot_regions, plot_trajectories, plot_visit_heat
from .weeks import plot_weeks

__all__ = ["plot_flows", "plot_next_places", "plot_regions", "plot_trajectories", "plot_visit_heat", "plot_weeks"]
