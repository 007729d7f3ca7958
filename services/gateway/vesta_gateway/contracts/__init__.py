"""Every RPC of the contracts, read from the descriptors."""
