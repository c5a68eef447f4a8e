"""Who may call: tokens and tenants, transport security, and what may be open to which network."""
