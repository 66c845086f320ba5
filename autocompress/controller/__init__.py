"""The search loop: designs, sampler, ledger, fidelities, finalists."""
