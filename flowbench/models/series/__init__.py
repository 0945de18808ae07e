"""Models of irregular time series: a latent ODE, recurrent networks, and Gaussian processes."""
