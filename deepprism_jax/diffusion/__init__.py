"""Diffusion: schedules, the process and what is predicted of it, samplers."""
