-- Notifications of saved views: a user's choice for each view.
-- depends: 0026.target

-- A row is deleted with its view. The row of a user that no longer exists is deleted with the ownerless views.
CREATE TABLE outfeed_view_notification (
    owner TEXT NOT NULL,         -- user:NAME or token:NAME, who is notified
    view_id INTEGER NOT NULL,
    has_sound INTEGER NOT NULL,
    is_always INTEGER NOT NULL,  -- 1: also while a page of Outfeed is visible
    PRIMARY KEY (owner, view_id)
);
