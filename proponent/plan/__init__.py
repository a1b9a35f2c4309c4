"""What a corpus and a model will cost before anything is paid: a cost model, and machines to put it to.

`shape` says how large a model is, `workload` what is asked for, `machines` what does it, `costs` puts them together,
and `calibrate` measures the machine at hand.
"""
