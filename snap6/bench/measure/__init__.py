"""Measure: latency, throughput, memory and work counters of one sampler, by PROTOCOL "Latency, throughput, memory".

`draw.measure_draw` does all of it in the order that keeps each number honest; the other modules are its parts.
"""
