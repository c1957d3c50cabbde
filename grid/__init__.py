"""The physical network: pandapower nets as frozen arrays, power flow, sensitivities, limits."""
