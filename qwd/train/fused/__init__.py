"""Replicas of one model trained in one program: what they share is computed once.

Of trainings that differ in numbers alone (seed, decay, rate, momentum) parameters are stacked,
gradients come from ``vmap(grad)``, and one update serves all. Every replica stays an ordinary
`qwd.train.session.Session`, whose tensors are views of the stack, and leaves an ordinary run
folder.

===============  =========================================================================
`fitting`        which trainings can be one program, from their settings alone
`stack`          parameters, buffers and optimizer state of all replicas, side by side
`gradients`      loss and gradients of all replicas at once
`normalising`    BatchNorm and its like, as one of all replicas' channels or in float32
`recorded`       operations of a function, recorded once and replayed
`updates`        the optimizers, with a rate and a coefficient for each replica
`pace`           those rates and coefficients, step by step
`feeding`        the batches, shared by the replicas of one seed
`compiling`      a step, as fast as the machine can: recorded, compiled, a CUDA graph
`memory`         how many replicas fit
`figures`        what ``metrics.csv`` says of weights and validation, of all replicas at once
`program`        the loop
===============  =========================================================================
"""
